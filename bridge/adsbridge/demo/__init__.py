"""The demonstration: the same pipeline that ``adsbridge run`` starts, fed with recorded sensor output."""
