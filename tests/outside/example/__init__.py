"""A package of somebody else's: one method, backbone, loss, table and figure, found through entry points."""
