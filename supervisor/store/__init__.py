"""What is on disk: content, layers, snapshots, images, volumes."""
