"""From a network that is nearly right to the right one: neurons that are lacking, in excess or in two parts, links and linear maps."""
