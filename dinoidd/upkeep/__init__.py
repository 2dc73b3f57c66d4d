"""What is done to a finished run: error rows tried again, small files made large."""
