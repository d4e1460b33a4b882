"""Every architectural number, validated."""
