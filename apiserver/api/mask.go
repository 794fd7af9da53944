package api

import corev1 "k8s.io/api/core/v1"

// maskedValue stands for every value of a Secret shown to people; in JSON it reads KioqKio=.
var maskedValue = []byte("*****")

// MaskSecret returns obj without secret values: a Secret's keys stay, each value reads "*****", and the copy of
// the object that `kubectl apply` leaves in an annotation is gone. Other kinds are returned as they are. obj is
// not changed.
func MaskSecret(obj Object) Object {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return obj
	}
	masked := *secret
	masked.Data, masked.StringData = nil, nil
	if secret.Data != nil {
		masked.Data = make(map[string][]byte, len(secret.Data))
		for key := range secret.Data {
			masked.Data[key] = maskedValue
		}
	}
	if secret.StringData != nil {
		masked.StringData = make(map[string]string, len(secret.StringData))
		for key := range secret.StringData {
			masked.StringData[key] = string(maskedValue)
		}
	}
	if _, ok := secret.Annotations[corev1.LastAppliedConfigAnnotation]; ok {
		masked.Annotations = make(map[string]string, len(secret.Annotations))
		for key, value := range secret.Annotations {
			if key != corev1.LastAppliedConfigAnnotation {
				masked.Annotations[key] = value
			}
		}
	}
	return &masked
}
