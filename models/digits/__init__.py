"""The built-in model: handwritten digits, 8 x 8 gray, and a small net with depthwise convolutions (README.md)."""
