"""DINOv3 with a head, from a normalised image to classified masks, or to classes of patches."""

import torch
from torch import Tensor, nn

from dinoidd.models.adapter import Adapter
from dinoidd.models.backbone import Backbone
from dinoidd.models.config import SegmenterConfig
from dinoidd.models.linear import LinearHead, PatchOutput
from dinoidd.models.pixel_decoder import PixelDecoder
from dinoidd.models.query_decoder import QueryDecoder, QueryOutput


class Segmenter(nn.Module):
    """The whole network: backbone, adapter and Mask2Former; or backbone and a linear head."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.is_fused = False  # rewritten for inference, see `fusion`
        self.backbone = Backbone(config.backbone)
        if config.head == "linear":
            self.linear_head = LinearHead(config.backbone.embed_dim, config.classes)
            return
        self.adapter = Adapter(config.backbone.embed_dim, config.adapter)
        self.pixel_decoder = PixelDecoder(config.backbone.embed_dim, config.decoder)
        self.query_decoder = QueryDecoder(config.decoder, config.classes)

    def forward(
        self, image_B3HW: Tensor, every_layer: bool = False
    ) -> list[QueryOutput] | list[PatchOutput]:
        """Segment normalised images; H and W are multiples of 32.

        Returns:
            The last layer's output, preceded by every earlier layer's with `every_layer`. Of a linear
            head its one output.

        Raises:
            ValueError: a size that is not a multiple of 32.
        """
        height, width = image_B3HW.shape[2:]
        if height % 32 or width % 32:
            raise ValueError(f"image size {height}x{width}: both have to be multiples of 32")
        taken = self.backbone(image_B3HW)
        if self.config.head == "linear":
            return [
                self.linear_head([patches for patches, _ in taken], (height // 16, width // 16))
            ]
        features = self.adapter(image_B3HW, taken)
        mask_features, scales = self.pixel_decoder(features)
        return self.query_decoder(scales, mask_features, every_layer)


def random_segmenter(config: SegmenterConfig, seed: int = 0) -> Segmenter:
    """A segmenter with random weights; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return Segmenter(config).eval()


def meta_segmenter(config: SegmenterConfig) -> Segmenter:
    """A segmenter whose weights take no memory, to be counted or filled from a file."""
    with torch.device("meta"):
        return Segmenter(config).eval()
