"""The figures that sandgate is held to, measured over real HTTP beside what they are compared with."""
