"""What a user would otherwise pick, each written as its own users would write it well, in an environment of its own."""
