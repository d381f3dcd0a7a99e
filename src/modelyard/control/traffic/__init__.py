"""The routing table: built from services and keys, published whole, handed to the model servers."""
