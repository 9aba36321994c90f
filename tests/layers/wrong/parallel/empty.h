// Looks at nothing.
