"""`dinoidd plan train` at the command line."""

from pathlib import Path

import pytest
from small_models import SMALL, small_table

import dinoidd.checkpoint.model
from dinoidd.checkpoint.file import CheckpointInfo
from dinoidd.cli import main
from dinoidd.storage import StorageOptions

RECIPE = """
checkpoint = "s3://bucket/model.safetensors"
endpoint_url = "http://recipe:9000"
use_gpu = false
"""


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ([], "http://recipe:9000"),
        (["--endpoint-url", "http://option:9000"], "http://option:9000"),
    ],
)
def test_plan__checkpoint_is_read_where_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], endpoint: str
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    asked = []

    def info(uri: str, storage: StorageOptions) -> CheckpointInfo:
        asked.append((uri, storage))
        return CheckpointInfo(config=SMALL, table=small_table(), weights_sha256="0")

    monkeypatch.setattr(dinoidd.checkpoint.model, "read_model_info", info)
    assert main(["plan", "train", "--recipe", str(tmp_path / "recipe.toml"), *options]) == 0
    assert asked == [("s3://bucket/model.safetensors", StorageOptions(endpoint_url=endpoint))]
