"""What number formats and elementary operations do on a device."""
