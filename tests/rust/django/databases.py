"""A new database on a server, for a site of a test."""


def make_database(database):
    """Makes the one that these settings name; a file of SQLite makes itself."""
    if "mysql" in database["ENGINE"]:
        import pymysql

        pymysql.install_as_MySQLdb()
        address = {"host": database["HOST"], "port": database["PORT"], "user": database["USER"]}
        connection = pymysql.connect(password=database["PASSWORD"], **address)
        connection.cursor().execute(f"CREATE DATABASE {database['NAME']} CHARACTER SET utf8mb4")
        connection.close()
    elif "postgresql" in database["ENGINE"]:
        import psycopg

        address = {"host": database["HOST"], "port": database["PORT"], "user": database["USER"]}
        with psycopg.connect(
            password=database["PASSWORD"], dbname="postgres", autocommit=True, **address
        ) as connection:
            connection.execute(f"CREATE DATABASE {database['NAME']}")
