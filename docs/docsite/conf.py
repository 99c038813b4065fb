# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of Sphinx for the static site, which `./test.sh docs` builds from what antsibull-docs writes."""

from __future__ import annotations

import re

from docutils import nodes

project = "backstop.postgres"
copyright = "the backstop.postgres contributors"
html_title = project
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_static_path = ["static"]
html_css_files = ["site.css"]
extensions = ["sphinx_antsibull_ext"]
pygments_style = "default"
pygments_dark_style = "github-dark"
highlight_language = "yaml"
default_role = "any"
nitpicky = True
#: Pages of ansible-core that module pages refer to. Sphinx would look them up in an inventory from the network.
ANSIBLE = "https://docs.ansible.com/projects/ansible/devel/"
PAGES = {
    "ansible_collections.ansible.builtin.": "collections/ansible/builtin/",
    "action_plugins": "plugins/action.html",
    "callback_plugins": "plugins/callback.html",
    "ANSIBLE_": "reference_appendices/config.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
    "module_defaults": "playbook_guide/playbooks_module_defaults.html",
    "module_defaults_groups": "playbook_guide/playbooks_module_defaults.html",
    "check_mode_dry": "playbook_guide/playbooks_checkmode.html",
    "diff_mode": "playbook_guide/playbooks_checkmode.html",
}


def refer_to_ansible(_application, _environment, node, content):
    """Make a reference to a page of ansible-core an ordinary link."""
    target = str(node.get("reftarget", ""))
    for start, page in PAGES.items():
        if target.startswith(start):
            return nodes.reference("", "", content, internal=False, refuri=ANSIBLE + page)
    return None


def arrange_index(_application, page, source):
    """Give the lists of pages that antsibull-docs writes captions and short names, for the theme's navigation."""
    if page == "index":
        text = re.sub(r"\.\. contents::\n( .*\n)+", "", source[0])
        text = re.sub(r"(?m)^(.+)(\n-+\n\n\.\. toctree::\n)", r"\1\2    :caption: \1\n", text)
        for kind, caption in {"module": "Modules", "callback": "Output", "role": "Roles"}.items():
            text = re.sub(r"(?m)^ {4}(\w+)_%s$" % kind, r"    \1 <\1_%s>" % kind, text)
            first = r"(\.\. toctree::\n)((?: {4}:.*\n)+\n {4}\w+ <\w+_%s>)" % kind
            text = re.sub(first, r"\1    :caption: %s\n\2" % caption, text, count=1)
        source[0] = text


def setup(application):
    application.connect("source-read", arrange_index)
    application.connect("missing-reference", refer_to_ansible)
