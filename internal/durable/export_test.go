package durable

// SyncDirError is for the tests.
var SyncDirError = syncDirError
