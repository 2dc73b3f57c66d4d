"""Reports about data sets: text, pictures, and the counting as a Ray job."""
