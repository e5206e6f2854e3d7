//! The command line of Standpipe.

fn main() {}
