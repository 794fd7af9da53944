package api

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"
	podwarnings "k8s.io/kubernetes/pkg/api/pod"
	servicewarnings "k8s.io/kubernetes/pkg/api/service"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/core"
)

// Warnings returns what upstream would warn about when obj is created, such as deprecated fields, followed by what
// this version does not act on. The texts are for Warning headers and plans.
func Warnings(obj Object) []string {
	_, internal, errs := convert(obj)
	if errs != nil {
		return nil
	}
	template := field.NewPath("spec", "template")
	var all []string
	switch internal := internal.(type) {
	case *core.Pod:
		all = podwarnings.GetWarningsForPod(context.Background(), internal, nil)
	case *apps.Deployment:
		all = podwarnings.GetWarningsForPodTemplate(context.Background(), template, &internal.Spec.Template, nil)
	case *apps.ReplicaSet:
		all = podwarnings.GetWarningsForPodTemplate(context.Background(), template, &internal.Spec.Template, nil)
	case *core.Service:
		all = servicewarnings.GetWarningsForService(internal, nil)
	}
	for _, note := range NotActedOn(obj) {
		all = append(all, "not acted on: "+note.String())
	}
	return all
}
