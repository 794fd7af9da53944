package api

// Labels and annotations of Slipway's own.
const (
	// AnnotationSource names the Source an object was made from.
	AnnotationSource = "slipway.dev/source"
	// AnnotationReplace, set to "true" in a manifest, lets the object be deleted and made again where a change cannot be
	// made in place. Bare Pods are replaced without it.
	AnnotationReplace = "slipway.dev/replace"
	// AnnotationOrigin says where in Git an object is written: "shop/web.yaml:12@3f2c1ab".
	AnnotationOrigin = "slipway.dev/origin"
)

// Field managers of Slipway's own parts.
const (
	// ManagerGit owns the fields that manifests set.
	ManagerGit = "slipway-git"
)
