"""The control API: one application that mounts every capability, with the rules that all routes share."""
