"""A search over hyper-parameters, without torch, Ray, storage or clock: what is drawn, compared and decided."""
