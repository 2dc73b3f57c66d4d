"""Jobs for a Ray cluster: what is sent there, and how they are followed and stopped."""
