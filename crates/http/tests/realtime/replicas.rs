//! Several copies of the program on one database, or one broker.
