"""Campaigns on any problem: tables of designs and outside programs, run folders, and their report."""
