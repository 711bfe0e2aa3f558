"""How good generated images are: feature statistics, and the scores made of them."""
