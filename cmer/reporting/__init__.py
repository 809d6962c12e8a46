"""Tables and figures of results, beside the values printed in the paper."""
