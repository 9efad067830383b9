"""The aliases of the registry: following the one in MODEL__URL, and recording who moved any of them."""
