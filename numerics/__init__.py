"""Where arithmetic and update rules stop doing what their formula says, measured on a device."""
