"""The methods, one file each. ``segzoo.methods.registry`` lists them without importing any."""
