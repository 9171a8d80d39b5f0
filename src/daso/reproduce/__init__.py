"""The paper's tables: cells, scales, and campaigns that run them."""
