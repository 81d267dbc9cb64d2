{{- /* Names, labels, and what the operator's pod and the hooks' pods share. */ -}}

{{- /* A Service's name begins with a letter and has no dot; a release's may. */ -}}
{{- define "diffusion-operator.name" -}}
{{- $release := replace "." "-" .Release.Name }}
{{- if .Values.nameOverride }}{{ .Values.nameOverride }}
{{- else if regexMatch "^[0-9]" $release }}{{ printf "%s-%s" .Chart.Name $release | trunc 48 | trimSuffix "-" }}
{{- else if contains .Chart.Name $release }}{{ $release | trunc 48 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" $release .Chart.Name | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Cluster-scoped objects carry the namespace, so that releases of one name in two namespaces do not meet. */ -}}
{{- define "diffusion-operator.clusterName" -}}
{{ include "diffusion-operator.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "diffusion-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "diffusion-operator.name" .) }}
{{- else }}{{ required "serviceAccount.name: name the ServiceAccount, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "diffusion-operator.selector" -}}
app.kubernetes.io/name: diffusion-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* The chart's own labels win over commonLabels, for selectors need them. Takes the root; `component` where it is not the operator's. */ -}}
{{- define "diffusion-operator.labels" -}}
{{- $own := fromYaml (include "diffusion-operator.selector" .) }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "app.kubernetes.io/part-of" "diffusion-operator" }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- toYaml (merge $own .Values.commonLabels) }}
{{- end }}

{{- define "diffusion-operator.hookLabels" -}}
{{- $labels := fromYaml (include "diffusion-operator.labels" .) }}
{{- toYaml (set $labels "app.kubernetes.io/component" "crds") }}
{{- end }}

{{- /* The first part of a repository is a registry if it has a dot or a colon or is localhost, as container runtimes have it. */ -}}
{{- define "diffusion-operator.image" -}}
{{- $repository := .Values.image.repository }}
{{- if .Values.everyPod.registry }}
{{- $first := splitList "/" $repository | first }}
{{- if and (contains "/" $repository) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) }}
{{- $repository = trimPrefix (printf "%s/" $first) $repository }}
{{- end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .Values.everyPod.registry) $repository }}
{{- end }}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* The operator's settings file: `settings`, with what `everyPod` adds. */ -}}
{{- define "diffusion-operator.settings" -}}
{{- $settings := deepCopy .Values.settings }}
{{- $every := .Values.everyPod }}
{{- $images := $settings.images | default dict }}
{{- if and $every.registry (not $images.registry) }}{{ $_ := set $images "registry" $every.registry }}{{ end }}
{{- if $every.pullSecrets }}{{ $_ := set $images "pullSecrets" (concat $every.pullSecrets ($images.pullSecrets | default list) | uniq) }}{{ end }}
{{- if $images }}{{ $_ := set $settings "images" $images }}{{ end }}
{{- if $every.tolerations }}{{ $_ := set $settings "tolerations" (concat ($settings.tolerations | default list) $every.tolerations | uniq) }}{{ end }}
{{- if $every.nodeSelector }}{{ $_ := set $settings "nodeSelector" (merge ($settings.nodeSelector | default dict) $every.nodeSelector) }}{{ end }}
{{- if $every.env }}{{ $_ := set $settings "env" (concat $every.env ($settings.env | default list)) }}{{ end }}
{{- if $settings.env }}{{ $_ := set $settings "env" (include "diffusion-operator.byName" $settings.env | fromYamlArray) }}{{ end }}
{{- if and $every.caConfigMap (not $settings.caConfigMap) }}{{ $_ := set $settings "caConfigMap" $every.caConfigMap }}{{ end }}
{{- toYaml $settings }}
{{- end }}

{{- /* Fields of the spec of every pod of this chart. */ -}}
{{- define "diffusion-operator.pod" -}}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .Values.userId }}
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.everyPod.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with merge (deepCopy .Values.nodeSelector) .Values.everyPod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.tolerations .Values.everyPod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Fields of every container of this chart. */ -}}
{{- define "diffusion-operator.container" -}}
image: {{ include "diffusion-operator.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- end }}

{{- /* Each variable once, as server-side apply wants it: the last one wins. Takes a container's `env`. */ -}}
{{- define "diffusion-operator.byName" -}}
{{- $last := dict }}
{{- $names := list }}
{{- range . }}
{{- $_ := set $last .name . }}
{{- $names = append $names .name }}
{{- end }}
{{- $entries := list }}
{{- range uniq $names }}{{ $entries = append $entries (get $last .) }}{{ end }}
{{- toYaml $entries }}
{{- end }}

{{- /* Takes the root, and what the container needs as it is. */ -}}
{{- define "diffusion-operator.env" -}}
{{- $env := list }}
{{- if .root.Values.everyPod.caConfigMap }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" }}
{{- $env = append $env (dict "name" . "value" "/etc/diffusion-ca/ca.crt") }}
{{- end }}
{{- end }}
{{- with concat $env .root.Values.everyPod.env .own }}
{{- include "diffusion-operator.byName" . }}
{{- end }}
{{- end }}

{{- define "diffusion-operator.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.everyPod.caConfigMap }}
- {name: ca, mountPath: /etc/diffusion-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "diffusion-operator.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- with .Values.everyPod.caConfigMap }}
- {name: ca, configMap: {name: {{ . | quote }}}}
{{- end }}
{{- end }}
