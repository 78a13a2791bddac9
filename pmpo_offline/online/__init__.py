"""Policies that learn by acting, and the makers of the shipped behaviours."""
