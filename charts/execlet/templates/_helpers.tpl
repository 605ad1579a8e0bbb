{{- define "execlet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/*
Prefix of every object's name. At most 50 characters, so that the names of Services and pods built from
it stay within the 63 of a DNS label.
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

{{/* Labels of every pod. None of them changes with the chart version alone: that would restart every agent. */}}
{{- define "execlet.podLabels" -}}
{{- $labels := dict
      "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63)
      "app.kubernetes.io/part-of" "execlet.dev" }}
{{- merge (include "execlet.selectorLabels" . | fromYaml) $labels .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Labels that select pods. They never change between versions, because a selector is immutable. */}}
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

{{/* Fits the pod security level "restricted". The image has no users, so the number is arbitrary. */}}
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
Fails early if the namespace forbids the agents' pods: otherwise only the DaemonSet's events say so, while
Helm waits in silence.
*/}}
{{- define "execlet.checkPodSecurity" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- $level := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "privileged" $namespace }}
{{- if ne $level "privileged" }}
{{- fail (printf `

Namespace %[1]s enforces the pod security level %[2]q, which forbids the agents: they use the node's
PID namespace, and mount the directories of the engines' sockets, of their state and of their logs.
Give execlet a namespace of its own, or relax this one and try again:

  kubectl label --overwrite namespace %[1]s pod-security.kubernetes.io/enforce=privileged
` .Release.Namespace $level) }}
{{- end }}
{{- end }}

{{/*
Helm would refuse an object of another release too, but without saying what to do about it.
Takes (dict "root" $ "apiVersion" A "kind" K "name" N "install" V), V being the value that leaves it out.
*/}}
{{- define "execlet.checkOwner" -}}
{{- $found := lookup .apiVersion .kind "" .name }}
{{- $owner := dig "metadata" "annotations" "meta.helm.sh/release-name" "" $found }}
{{- $namespace := dig "metadata" "annotations" "meta.helm.sh/release-namespace" "" $found }}
{{- $ours := and (eq $owner .root.Release.Name) (eq $namespace .root.Release.Namespace) (eq "Helm" (dig "metadata" "labels" "app.kubernetes.io/managed-by" "" $found)) }}
{{- if and $found (not $ours) (not .root.Values.crds.adopt) }}
{{- $whose := "was not installed by Helm" }}
{{- $upgrade := "" }}
{{- /* Helm 4 uses server-side apply, where fields belong to whoever wrote them first. */}}
{{- $flags := ternary "--take-ownership" "--take-ownership --force-conflicts" (hasPrefix "v3." .root.Capabilities.HelmVersion.Version) }}
{{- if $owner }}
{{- $whose = printf "was installed by release %s in namespace %s" $owner $namespace }}
{{- $upgrade = printf `
- If that release is still there, upgrade it instead: a cluster has one execlet. This shows it:
    helm list --namespace %s --filter '^%s$'` $namespace $owner }}
{{- end }}
{{- fail (printf `

%[4]s %[1]s exists already and %[2]s.
%[3]s
- To make it part of this release, once whatever installed it is gone:
    helm ... --set crds.adopt=true %[6]s
- To leave it to whoever manages it:
    helm ... --set %[5]s=false
` .name $whose $upgrade .kind .install $flags) }}
{{- end }}
{{- end }}

{{/* Which policies are installed: the value of the flag --admission. */}}
{{- define "execlet.admission" -}}
{{- if not .Values.admission.enabled -}}
off
{{- else if eq .Values.admission.stamp "always" -}}
stamped
{{- else if and (eq .Values.admission.stamp "auto") (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
stamped
{{- else -}}
guarded
{{- end -}}
{{- end }}

{{/* The right to read the admission policies, for both programs. */}}
{{- define "execlet.policiesRules" -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  resourceNames: [execlet-create, execlet-status, execlet-agent, execlet-manager, execlet-batch]
  verbs: [get]
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingadmissionpolicies, mutatingadmissionpolicybindings]
  resourceNames: [execlet-stamp, execlet-batch-stamp]
  verbs: [get]
{{- end }}

{{/* Flags that say which admission policies must be in place, for both programs. */}}
{{- define "execlet.rulesArgs" -}}
- --admission={{ include "execlet.admission" . }}
- --admission-margin-seconds={{ int64 .Values.admission.marginSeconds }}
- --manager-service-account=$(POD_NAMESPACE):{{ include "execlet.fullname" . }}-manager
- --agent-service-account=$(POD_NAMESPACE):{{ include "execlet.fullname" . }}-agent
{{- end }}
