"""Single images: read from anywhere, segmented, drawn, and written as a folder each."""
