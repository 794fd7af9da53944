// Package reconciler is the folder of the loops that make the stored state so: one package for each, none of which
// imports another. They meet in stored objects only; this package holds the tests of how they do.
package reconciler
