"""The Host Network Service: networks and endpoints as documents, compartments and vNICs as what becomes of them."""
