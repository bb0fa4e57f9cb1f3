"""One file or folder per gateway: its wire format over the shared books. They know no database, framework or clock."""
