"""PostgreSQL: a schema for each Memory, its roles and logins, and the migrations of its modules."""
