"""The other side: vendors and clouds with CAs of their own."""
