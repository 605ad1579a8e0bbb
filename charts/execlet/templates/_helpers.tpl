{{- define "execlet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/*
Prefix of every object's name. At most 50 characters, so that the names of Services and pods made
of it stay within the 63 of a DNS label.
*/}}
{{- define "execlet.fullname" -}}
{{- $name := include "execlet.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of every object. Takes (dict "root" $ "component" "agent"); the component may be left out. */}}
{{- define "execlet.labels" -}}
{{- $labels := dict
      "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- merge $labels (include "execlet.podLabels" . | fromYaml) | toYaml }}
{{- end }}

{{/* Labels of every pod: none that changes with the chart alone, for that would restart every agent. */}}
{{- define "execlet.podLabels" -}}
{{- $labels := dict
      "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63)
      "app.kubernetes.io/part-of" "execlet.dev" }}
{{- merge (include "execlet.selectorLabels" . | fromYaml) $labels .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Labels that select pods. They never change between versions: a selector is immutable. */}}
{{- define "execlet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "execlet.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Metadata of the pods of a component. Takes (dict "root" $ "component" "agent" "values" .Values.agent). */}}
{{- define "execlet.podMetadata" -}}
labels:
  {{- merge (include "execlet.podLabels" . | fromYaml) .values.podLabels | toYaml | nindent 2 }}
{{- $annotations := dict }}
{{- if .root.Values.metrics.scrapeAnnotations }}
{{- $annotations = dict
      "prometheus.io/scrape" "true"
      "prometheus.io/port" (.root.Values.http.port | toString)
      "prometheus.io/path" "/metrics" }}
{{- end }}
{{- with merge (deepCopy .values.podAnnotations) $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "execlet.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Arguments that both programs take. */}}
{{- define "execlet.commonArgs" -}}
- --http-addr={{ .Values.http.address }}:{{ .Values.http.port }}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
{{- if .Values.audit.required }}
- --audit-required
{{- end }}
- --audit-command={{ .Values.audit.command }}
- --audit-file-bytes={{ int64 .Values.audit.fileBytes }}
- --audit-files={{ int64 .Values.audit.files }}
{{- end }}

{{- define "execlet.ports" -}}
- name: http
  containerPort: {{ .Values.http.port }}
  protocol: TCP
{{- end }}

{{/* A pod that the pod security level "restricted" admits. The image knows no users: the number is our own choice. */}}
{{- define "execlet.restrictedPodSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "execlet.restrictedSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
What makes the agents' pods impossible is said here: a DaemonSet whose pods are refused says so in
its events only, while Helm waits for it in silence.
*/}}
{{- define "execlet.checkPodSecurity" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $level := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "privileged" $namespace }}
{{- if ne $level "privileged" }}
{{- fail (printf `

Namespace %[1]s enforces the pod security level %[2]q, which refuses the agents: they use the
node's PID namespace, and mount the folders of the engine's socket, of their state and of their logs.
Give execlet a namespace of its own, or relax this one and try again:

  kubectl label --overwrite namespace %[1]s pod-security.kubernetes.io/enforce=privileged
` .Release.Namespace $level) }}
{{- end }}
{{- end }}
