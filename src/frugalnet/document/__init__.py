"""A document of sections: text, tables, charts, pictures; as HTML, Markdown and PNG. It knows no experiment."""
