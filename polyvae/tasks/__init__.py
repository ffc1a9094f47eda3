"""What a collective variable is used for; these modules do not import each other."""
