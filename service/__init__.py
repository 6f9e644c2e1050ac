"""The service: takes definitions, plans and hands out trials, keeps results, ranks them."""
