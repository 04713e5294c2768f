"""A second, slow model of the domain: written from the specification alone, shares no code with the product."""
