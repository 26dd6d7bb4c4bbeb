"""What a step needs, by arithmetic: floating-point operations, and bytes of each device."""
