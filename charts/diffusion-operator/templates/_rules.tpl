{{- /* What the operator may do where it serves; docs/reference/operator.md says what for. `get` only where a single object is asked for:
the rest is listed and watched, and neither apply nor deletion needs it. */ -}}
{{- define "diffusion-operator.rules" -}}
- {apiGroups: [diffusionoperator.io], resources: [diffusiondeployments], verbs: [list, watch]}
- {apiGroups: [diffusionoperator.io], resources: [diffusionengines], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [diffusionoperator.io], resources: [diffusiondeployments/status, diffusionengines/status], verbs: [patch]}
- {apiGroups: [batch], resources: [jobs], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [apps], resources: [deployments, controllerrevisions], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
- {apiGroups: [""], resources: [services], verbs: [list, watch, create, patch]}
- {apiGroups: [""], resources: [configmaps], verbs: [get, create, patch]}
{{- $store := .Values.settings.engineStore | default dict }}
{{- if ne ($store.kind | default "PersistentVolumeClaim") "S3" }}
{{- $makes := or (not (hasKey $store "create")) $store.create }}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get{{ if $makes }}, create, patch{{ end }}]}
{{- end }}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [list, watch, create, patch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch, create, patch]}
- {apiGroups: [autoscaling], resources: [horizontalpodautoscalers], verbs: [list, watch, create, patch, delete]}
- {apiGroups: [keda.sh], resources: [scaledobjects], verbs: [list, create, patch, delete]}
- {apiGroups: [monitoring.coreos.com], resources: [podmonitors], verbs: [list, create, patch]}
- {apiGroups: [resource.k8s.io], resources: [resourceclaimtemplates], verbs: [list, create, patch, delete]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [""], resources: [events], verbs: [list]}
{{- end }}

{{- define "diffusion-operator.subjects" -}}
- {kind: ServiceAccount, name: {{ include "diffusion-operator.serviceAccount" . }}, namespace: {{ .Release.Namespace | quote }}}
{{- end }}
