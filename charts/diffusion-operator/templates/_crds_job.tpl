{{- define "diffusion-operator.hook" -}}
helm.sh/hook: {{ .events }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- /* Takes the root, the command and the events. */ -}}
{{- define "diffusion-operator.crdsJob" }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "diffusion-operator.name" .root }}-crds-{{ .command }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "diffusion-operator.hookLabels" .root | nindent 4 }}
  annotations: {{- include "diffusion-operator.hook" (dict "events" .events "weight" "0") | nindent 4 }}
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 300
  template:
    metadata:
      labels: {{- include "diffusion-operator.hookLabels" .root | nindent 8 }}
    spec:
      {{- include "diffusion-operator.pod" .root | nindent 6 }}
      serviceAccountName: {{ include "diffusion-operator.name" .root }}-crds
      restartPolicy: Never
      containers:
        - name: crds
          {{- include "diffusion-operator.container" .root | nindent 10 }}
          command: [python3, -m, diffusion_operator.crds, {{ .command }}]
          {{- with include "diffusion-operator.env" (dict "root" .root "own" list) }}
          env: {{- . | nindent 12 }}
          {{- end }}
          volumeMounts: {{- include "diffusion-operator.mounts" .root | nindent 12 }}
      volumes: {{- include "diffusion-operator.volumes" .root | nindent 8 }}
{{- end }}
