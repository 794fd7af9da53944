package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopy returns an independent copy.
func (in *Source) DeepCopy() *Source {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	if in.Status.Conditions != nil {
		out.Status.Conditions = make([]metav1.Condition, len(in.Status.Conditions))
		for i := range in.Status.Conditions {
			in.Status.Conditions[i].DeepCopyInto(&out.Status.Conditions[i])
		}
	}
	return &out
}

// DeepCopyObject implements runtime.Object.
func (in *Source) DeepCopyObject() runtime.Object { return in.DeepCopy() }

// DeepCopy returns an independent copy.
func (in *Rollout) DeepCopy() *Rollout {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	out.Status.Plan = slices.Clone(in.Status.Plan)
	out.Status.Errors = slices.Clone(in.Status.Errors)
	out.Status.NotActedOn = slices.Clone(in.Status.NotActedOn)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (in *Rollout) DeepCopyObject() runtime.Object { return in.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (in *SourceList) DeepCopyObject() runtime.Object {
	out := *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Source, len(in.Items))
	for i := range in.Items {
		out.Items[i] = *in.Items[i].DeepCopy()
	}
	return &out
}

// DeepCopyObject implements runtime.Object.
func (in *RolloutList) DeepCopyObject() runtime.Object {
	out := *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Rollout, len(in.Items))
	for i := range in.Items {
		out.Items[i] = *in.Items[i].DeepCopy()
	}
	return &out
}
