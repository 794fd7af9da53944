package api

// Labels and annotations of Slipway's own.
const (
	// AnnotationSource names the Source an object was made from.
	AnnotationSource = "slipway.dev/source"
	// AnnotationOrigin says where in Git an object is written: "shop/web.yaml:12@3f2c1ab".
	AnnotationOrigin = "slipway.dev/origin"
)

// Field managers of Slipway's own parts.
const (
	// ManagerGit owns the fields that manifests set.
	ManagerGit = "slipway-git"
)
