package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations on ReplicaSets, named as in Kubernetes.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

const (
	hashLabel  = appsv1.DefaultDeploymentUniqueLabelKey
	ownPrefix  = "slipway.dev/" // says where the deployment comes from, which is not where its sets come from
	maxHistory = 2000           // bytes of the history annotation
	maxName    = 253
)

// hash is a short name for a template: the same for equal ones, another for each collision count.
func hash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	data, err := json.Marshal(template)
	if err != nil { // a template that came out of the store can be encoded
		data = []byte(err.Error())
	}
	h.Write(data)
	if collisions != nil {
		fmt.Fprintf(h, "/%d", *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// sameTemplate says whether rs makes the Pods d asks for, the hash label aside.
func sameTemplate(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	a, b := d.Spec.Template, rs.Spec.Template
	a.Labels, b.Labels = without(a.Labels, hashLabel), without(b.Labels, hashLabel)
	return equality.Semantic.DeepEqual(a, b)
}

func without(m map[string]string, key string) map[string]string {
	if _, ok := m[key]; !ok {
		return m
	}
	m = maps.Clone(m)
	delete(m, key)
	return m
}

func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// missing returns what makes the set of the present template, if it is to be made now.
func (f *fleet) missing(sets []*appsv1.ReplicaSet, revision string) Action {
	if !f.make {
		return nil
	}
	rs := f.template(revision)
	for _, other := range sets {
		if other.Name == rs.Name {
			count := int32(1)
			if f.d.Status.CollisionCount != nil {
				count += *f.d.Status.CollisionCount
			}
			return Collide{count}
		}
	}
	return Create{rs}
}

// template returns the ReplicaSet of the present template.
func (f *fleet) template(revision string) *appsv1.ReplicaSet {
	d := f.d
	sum := hash(&d.Spec.Template, d.Status.CollisionCount)
	pods := *d.Spec.Template.DeepCopy()
	pods.Labels = with(pods.Labels, hashLabel, sum)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, hashLabel, sum)
	prefix := d.Name[:min(len(d.Name), maxName-1-len(sum))]
	rs := &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: prefix + "-" + sum, Labels: pods.Labels,
			OwnerReferences: []metav1.OwnerReference{ownerReference(d)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &f.start, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: pods},
	}
	rs.Annotations = f.annotations(rs, revision)
	return rs
}

func ownerReference(d *appsv1.Deployment) metav1.OwnerReference {
	return *metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))
}

// revision is the number of the present template: one more than the highest old one, unless it has it already.
func (f *fleet) revision() string {
	var highest int64
	for _, s := range f.old {
		highest = max(highest, revisionOf(s.rs))
	}
	if f.fresh != nil && revisionOf(f.fresh.rs) > highest {
		return f.fresh.rs.Annotations[revisionAnnotation]
	}
	return strconv.FormatInt(highest+1, 10)
}

func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func annotated(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil && n >= 0
}

// changes returns what brings the existing sets to their sizes and annotations, shrinking before growing.
func (f *fleet) changes(revision string) []Action {
	var shrink, other []Action
	for _, s := range f.all() {
		if s.rs.DeletionTimestamp != nil {
			continue
		}
		rs := s.rs.DeepCopy()
		rs.Spec.Replicas = &s.size
		switch {
		case s == f.fresh:
			rs.Spec.MinReadySeconds = f.d.Spec.MinReadySeconds
			rs.Annotations = f.annotations(rs, revision)
		case s.size > 0 || size(s.rs) > 0:
			rs.Annotations = f.sizes(rs.Annotations)
		}
		switch {
		case s.size < size(s.rs):
			shrink = append(shrink, Change{s.rs, rs})
		case s.size > size(s.rs) || rs.Spec.MinReadySeconds != s.rs.Spec.MinReadySeconds || !maps.Equal(rs.Annotations, s.rs.Annotations):
			other = append(other, Change{s.rs, rs})
		}
	}
	return append(shrink, other...)
}

// sizes returns annotations with the deployment's size, from which a later resize is recognised: not while a resize
// has to wait.
func (f *fleet) sizes(annotations map[string]string) map[string]string {
	if f.waits {
		annotations = maps.Clone(annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		return annotations
	}
	surge, _ := bounds(f.d)
	annotations = with(annotations, desiredAnnotation, strconv.Itoa(int(f.want)))
	annotations[maxAnnotation] = strconv.Itoa(int(f.want + surge))
	return annotations
}

// annotations returns those of the fresh set: the deployment's, its size and the revision. Revisions the set had
// before go to its history.
func (f *fleet) annotations(rs *appsv1.ReplicaSet, revision string) map[string]string {
	out := f.sizes(rs.Annotations)
	for key, value := range f.d.Annotations {
		if !isOwn(key) {
			out[key] = value
		}
	}
	if before := out[revisionAnnotation]; before != "" && before != revision {
		out[historyAnnotation] = remember(out[historyAnnotation], before)
	}
	out[revisionAnnotation] = revision
	return out
}

// isOwn says that an annotation of a deployment is about the deployment only.
func isOwn(key string) bool {
	switch key {
	case revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation, corev1.LastAppliedConfigAnnotation, appsv1.DeprecatedRollbackTo:
		return true
	}
	return strings.HasPrefix(key, ownPrefix)
}

// remember appends a revision to a history, dropping the oldest where it grows too long.
func remember(history, revision string) string {
	if history == "" {
		return revision
	}
	all := append(strings.Split(history, ","), revision)
	for len(all) > 1 && len(strings.Join(all, ",")) > maxHistory {
		all = slices.Delete(all, 0, 1)
	}
	return strings.Join(all, ",")
}
