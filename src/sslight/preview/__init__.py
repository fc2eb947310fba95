"""What a recipe's views amount to on given images: overlap, object sizes, weights, cost."""
